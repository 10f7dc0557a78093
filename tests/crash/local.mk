# powerloss.so is preloaded into culverd by t_crash.py.
check_PROGRAMS += %reldir%/powerloss.so
%canon_reldir%_powerloss_so_SOURCES = %reldir%/powerloss.c
%canon_reldir%_powerloss_so_CFLAGS = -std=gnu11 -fPIC $(WARN_CFLAGS)
%canon_reldir%_powerloss_so_LDFLAGS = -shared -ldl -pthread
TESTS += %reldir%/t_crash.py
EXTRA_DIST += %reldir%/t_crash.py %reldir%/load.py
