"""A program in a terminal (tmux), driven by typing and by what is to be read on its screen."""
import os
import pathlib
import re
import subprocess
import time

from patience import PATIENCE, step


class Terminal:
    def __init__(self, name, directory, command):
        self.name = name
        self.socket = pathlib.Path(directory, "tmux")
        self.tmux("new-session", "-d", "-s", name, "-x", "150", "-y", "50", command)
        self.tmux("set-option", "-t", name, "history-limit", "5000")

    def tmux(self, *words):
        environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        return subprocess.run(["tmux", "-f", "/dev/null", "-S", self.socket, *words], env=environment, check=True,
                              capture_output=True, text=True).stdout

    def types(self, text):
        self.tmux("send-keys", "-t", self.name, "-l", text)
        self.tmux("send-keys", "-t", self.name, "Enter")

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", self.name)

    def reads(self, what, pattern):
        """Waits until the screen has it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if re.search(pattern, self.screen()):
                return step(f"{self.name} reads {what}")
            time.sleep(0.05)
        raise SystemExit(f"FAILED: {self.name} never read {what} ({pattern}); the screen:\n{self.screen()}")

    def end(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)
