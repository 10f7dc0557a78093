# Rules of daemon/
