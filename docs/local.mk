# Rules of docs/
