# Rules of packaging/
