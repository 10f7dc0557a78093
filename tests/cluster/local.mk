TESTS += %reldir%/t_cluster.py %reldir%/t_degraded.py
EXTRA_DIST += %reldir%/README.md %reldir%/t_cluster.py %reldir%/t_degraded.py %reldir%/nodes.py %reldir%/clients.py %reldir%/boxes.py tests/lib/proxy.py
