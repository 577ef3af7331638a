"""
Tests of `darner.store.memory`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from darner.store.interfaces import IStore
from darner.store.memory import MemoryStore
from test.store_contract import StoreContract


class MemoryStoreTests(StoreContract, SynchronousTestCase):
    """The store in memory keeps the contract; what closing leaves is the store itself."""

    def make_store(self) -> IStore:
        return MemoryStore()

    def reopen(self, store: IStore) -> IStore:
        store.close()
        return store

    def test_never_worn(self) -> None:
        """There are no files that grow while it is used."""
        store = MemoryStore()
        store.settle()
        store.renew()
        self.assertFalse(store.worn())
