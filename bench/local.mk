# Rules of bench/
