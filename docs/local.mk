# Rules of docs/
dist_man_MANS += %reldir%/culverd.8 %reldir%/culver.conf.5
EXTRA_DIST += %reldir%/make-conf-page
