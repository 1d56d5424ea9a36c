"""The APIs that clients speak: one file for each, with its requests, answers, streams and errors. None knows the
engine, a socket or another dialect."""
