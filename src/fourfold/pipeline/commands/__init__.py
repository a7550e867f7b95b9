"""The commands: each reads files, calls the library, and writes files. No mathematics here."""
