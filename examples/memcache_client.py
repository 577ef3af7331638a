"""
A stock memcache client against a running server, which knows nothing of queues.

    python -m darner --data-dir=DATA_DIR --port=22133 --dialect=memcache
    python memcache_client.py 127.0.0.1:22133

pymemcache looks a reply up under the key that it asked for, options and all; so the server is told to answer as
memcached would (``--dialect=memcache``).  For plain reads and sets that is not needed.
"""

import sys

from pymemcache.client.base import Client
from pymemcache.serde import pickle_serde


def main(address):
    # Types travel in the flags, which are kept with the item.
    client = Client(address, serde=pickle_serde, default_noreply=False)
    client.set("jobs", "resize photo 1")
    client.set("jobs", {"photo": 2, "width": 640})

    print("plain read:", client.get("jobs"))
    print("open read:", client.get("jobs/open"))
    # Done with it: close it, and open the next one if there is any within 100 ms.
    print("nothing more:", client.get("jobs/close/open/t=100"))

    client.set("jobs/sync", "on stable storage")
    client.get("jobs/open")
    client.get("jobs/abort")
    print("given back:", client.get("jobs/peek"))
    print("items:", client.stats()[b"queue_jobs_items"])
    client.delete("jobs")
    print("deleted:", client.get("jobs"))
    client.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
