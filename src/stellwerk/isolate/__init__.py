"""THE ISOLATE PROCESS: one version of one Worker, and the zygote that it is forked from."""
