"""1: dropped, claimed.  The spool, which stands where Shifter had Redis and Celery."""
