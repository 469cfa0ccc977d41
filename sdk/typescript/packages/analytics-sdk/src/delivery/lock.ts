/**
 * Runs `task` while no other tab of this origin runs one of the same name. Where there are no Web Locks (old browsers,
 * pages without HTTPS), it runs at once: two tabs may then send the same batch, which counts once, since batch and
 * events keep their ids.
 */
export function exclusively<T>(name: string, task: () => Promise<T>): Promise<T> {
  const locks = globalThis.navigator?.locks;
  return locks ? (locks.request(name, task) as Promise<T>) : task();
}
