"""How requests are carried: one loop, and lanes of threads or coroutines. No vendor's words in here."""
