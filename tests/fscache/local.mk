FSCACHE_FIX = %reldir%/fix.c %reldir%/fix.h

check_PROGRAMS += %reldir%/t_fscache %reldir%/t_flights %reldir%/t_damage
TESTS += %reldir%/t_fscache %reldir%/t_flights %reldir%/t_damage
%canon_reldir%_t_fscache_SOURCES = %reldir%/t_fscache.c $(FSCACHE_FIX)
%canon_reldir%_t_fscache_LDADD = $(FSCACHE_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
%canon_reldir%_t_flights_SOURCES = %reldir%/t_flights.c $(FSCACHE_FIX)
%canon_reldir%_t_flights_LDADD = $(FSCACHE_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
%canon_reldir%_t_damage_SOURCES = %reldir%/t_damage.c $(FSCACHE_FIX)
%canon_reldir%_t_damage_LDADD = $(FSCACHE_LIBS) $(SODIUM_LIBS) $(TEST_LIBS)
