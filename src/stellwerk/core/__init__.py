"""DECISIONS: pure rules over values. No I/O, no clock, no chance, no await; imports nothing else of ours."""
