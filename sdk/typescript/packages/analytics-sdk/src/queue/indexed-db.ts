import type { Backend, Transaction } from "./backend.js";

const VERSION = 1;
const STORE = "queue";
/** The key of the queue's state. Ids of records, which are hexadecimal, sort before it. */
const STATE = "state";

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Opens the database of this name. Rejects where IndexedDB is blocked or refuses. */
export async function openIndexedDb(name: string): Promise<Backend> {
  const request = indexedDB.open(name, VERSION);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  const database = await done(request);
  // A newer version of this file in another tab may change the layout.
  database.onversionchange = () => database.close();
  return {
    transact: <T>(run: (transaction: Transaction) => Promise<T>) => {
      return new Promise<T>((resolve, reject) => {
        const transaction = database.transaction(STORE, "readwrite");
        const store = transaction.objectStore(STORE);
        let result: T;
        transaction.oncomplete = () => resolve(result);
        transaction.onabort = () => reject(transaction.error);
        const steps: Transaction = {
          first: (count) => done(store.getAll(IDBKeyRange.upperBound(STATE, true), count)),
          get: (id) => done(store.get(id)),
          put: (record) => store.put(record, record.id),
          delete: (id) => store.delete(id),
          state: () => done(store.get(STATE)),
          setState: (state) => store.put(state, STATE),
          clear: () => store.clear(),
        };
        run(steps).then((value) => {
          result = value;
        }, reject);
      });
    },
    close: () => database.close(),
  };
}
