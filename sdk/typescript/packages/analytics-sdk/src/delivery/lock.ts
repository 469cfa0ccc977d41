/**
 * Runs `task` while no other tab of this origin runs one of the same name. Where there are no Web Locks (old browsers,
 * pages without HTTPS, sandboxed frames), it runs at once: two tabs may then send the same batch, which counts once,
 * since batch and events keep their ids.
 */
export async function exclusively<T>(name: string, task: () => Promise<T>): Promise<T> {
  let isRun = false;
  const run = (): Promise<T> => {
    isRun = true;
    return task();
  };
  const locked = globalThis.navigator?.locks?.request(name, run) as Promise<T> | undefined;
  return locked ? locked.catch((cause) => (isRun ? Promise.reject(cause) : task())) : task();
}
