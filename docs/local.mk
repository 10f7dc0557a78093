# Rules of docs/
dist_man_MANS += %reldir%/culverctl.8 %reldir%/culverd.8 %reldir%/culver.conf.5
EXTRA_DIST += %reldir%/make-conf-page
EXTRA_DIST += %reldir%/architecture.md %reldir%/costs.md %reldir%/format.md %reldir%/format-summary.md %reldir%/dovecot-differences.md
