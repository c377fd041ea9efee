"""The rules of isolates: their life as a table, and when to spawn, reuse, drain or evict one."""
