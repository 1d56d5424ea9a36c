"""An engine on another machine or in another program, behind the same handle as the child process."""
