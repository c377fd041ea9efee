"""``pyodide.webloop``: the event loop is asyncio's own here; the class exists for programs that set its attributes."""

from __future__ import annotations


class WebLoop:
    no_in_progress_handler = None
    system_exit_handler = None
    keyboard_interrupt_handler = None
