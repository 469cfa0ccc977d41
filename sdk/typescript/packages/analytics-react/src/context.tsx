import { AnalyticsClient, type AnalyticsClientOptions } from "@tallyhouse/analytics-sdk";
import { QueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useMemo, useRef, useState } from "react";

interface Analytics {
  client: AnalyticsClient;
  /** Tells the answers to this client from those to others in the same cache. */
  clientId: number;
  queries: QueryClient;
}

const clientIds = new WeakMap<AnalyticsClient, number>();
let clients = 0;

function idOf(client: AnalyticsClient): number {
  const id = clientIds.get(client) ?? ++clients;
  clientIds.set(client, id);
  return id;
}

const AnalyticsContext = createContext<Analytics | undefined>(undefined);

/** Properties of {@link AnalyticsProvider}: a client of yours, or settings for one. */
export type AnalyticsProviderProps = {
  children?: ReactNode;
  /** Where answers are cached. Default: a cache of the provider's own, apart from that of your application. */
  queryClient?: QueryClient | undefined;
} & (
  | { client: AnalyticsClient; config?: undefined }
  | {
      client?: undefined;
      /** Read once: to change it, give the provider another `key`. */
      config: AnalyticsClientOptions;
    }
);

/**
 * Gives the hooks below it a client. A client that it makes is started when the provider is mounted and, after sending
 * what waits, stopped when it is unmounted; one that it is given stays as it is.
 */
export function AnalyticsProvider({ children, client, config, queryClient }: AnalyticsProviderProps): ReactNode {
  const [made] = useState(() =>
    client ? undefined : new AnalyticsClient({ ...(config as AnalyticsClientOptions), autoStart: false }),
  );
  const [cache] = useState(() => queryClient ?? new QueryClient());
  const used = client ?? made;
  if (used === undefined) throw new Error("AnalyticsProvider was given a client first and none later");

  // StrictMode unmounts and mounts again at once: what waits is not to be sent for that.
  const stopping = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => {
    clearTimeout(stopping.current);
    made?.start();
    return () => {
      stopping.current = setTimeout(() => made?.stop());
    };
  }, [made]);

  // Without this, questions would not be asked again after the browser was offline.
  useEffect(() => {
    if (queryClient !== undefined) return;
    cache.mount();
    return () => cache.unmount();
  }, [cache, queryClient]);

  const queries = queryClient ?? cache;
  const value = useMemo(() => ({ client: used, clientId: idOf(used), queries }), [used, queries]);
  return <AnalyticsContext.Provider value={value}>{children}</AnalyticsContext.Provider>;
}

/** The client and the cache of the provider above. */
export function useAnalytics(): Analytics {
  const analytics = useContext(AnalyticsContext);
  if (analytics === undefined) throw new Error("there is no AnalyticsProvider above this component");
  return analytics;
}

/** The client of the provider above. */
export function useAnalyticsClient(): AnalyticsClient {
  return useAnalytics().client;
}
