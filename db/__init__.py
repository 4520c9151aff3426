"""The database: `tables` (what exists), `migrations/` (how it came about), `engine` (how to reach it), and one module of
named set-based statements per subject (`bulks`, `transfers`, `positions`, `progress`, `deliveries`, …).

A statement takes one JSON document or a few arrays and does its work for a whole batch; nothing here decides anything.
"""
