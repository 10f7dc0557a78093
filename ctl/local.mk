# Rules of ctl/
