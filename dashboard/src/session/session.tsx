"use client";

import { AnalyticsProvider } from "@tallyhouse/analytics-react";
import { AnalyticsClient, AnalyticsError } from "@tallyhouse/analytics-sdk";
import { QueryCache, QueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useState } from "react";

/** Whether the service can be asked, and by which token. */
export type SessionState =
  | { status: "checking" }
  /** It answers. Without a token where it requires none. */
  | { status: "ready"; token: string | undefined; orgId: string }
  /** It requires a token; `reason` says what was wrong with the last one. */
  | { status: "token-needed"; reason?: string }
  | { status: "failed"; error: AnalyticsError };

interface Session {
  state: SessionState;
  /** Tries this token, and keeps it until the tab is closed if it is good. */
  signIn: (token: string) => void;
  signOut: () => void;
  /** Asks again whether the service answers. */
  retry: () => void;
}

const SessionContext = createContext<Session | undefined>(undefined);

/** Where the token is kept: in this tab, until it is closed. */
const TOKEN_KEY = "tallyhouse-token";

/** Where browsers block storage, the token is kept until the page is left. */
let unstoredToken: string | undefined;

function keptToken(): string | undefined {
  try {
    return sessionStorage.getItem(TOKEN_KEY) ?? undefined;
  } catch {
    return unstoredToken;
  }
}

/** Keeps a token; none with undefined. */
function keepToken(token: string | undefined): void {
  unstoredToken = token;
  try {
    if (token === undefined) sessionStorage.removeItem(TOKEN_KEY);
    else sessionStorage.setItem(TOKEN_KEY, token);
  } catch {
    // It is in memory.
  }
}

function clientOf(token: string | undefined): AnalyticsClient {
  // Nothing is tracked here: there is no queue to keep.
  return new AnalyticsClient({ baseUrl: "", apiKey: token, storage: "memory", autoStart: false });
}

/** Asks the cheapest question to which every token with the scope `read` has an answer. */
async function check(token: string | undefined): Promise<SessionState> {
  const today = new Date().toISOString().slice(0, 10);
  try {
    const question = { startDate: today, endDate: today, metrics: ["events"] };
    const { orgId } = await clientOf(token).getMetricsSummary(question);
    return { status: "ready", token, orgId };
  } catch (cause) {
    const error = cause instanceof AnalyticsError ? cause : new AnalyticsError("INTERNAL", String(cause));
    const isAboutToken = error.status === 401 || (error.status === 403 && token !== undefined);
    if (!isAboutToken) return { status: "failed", error };
    return token === undefined ? { status: "token-needed" } : { status: "token-needed", reason: error.message };
  }
}

/** Finds out whether the service requires a token, and keeps the one that it is given. */
export function SessionProvider({ children }: { children: ReactNode }): ReactNode {
  const [state, setState] = useState<SessionState>({ status: "checking" });

  const begin = useCallback(async (token: string | undefined) => {
    setState({ status: "checking" });
    const next = await check(token);
    if (next.status === "ready" && token !== undefined) keepToken(token);
    if (next.status === "token-needed") keepToken(undefined);
    setState(next);
  }, []);

  useEffect(() => {
    void begin(keptToken());
  }, [begin]);

  const session = useMemo<Session>(
    () => ({
      state,
      signIn: (token) => void begin(token),
      signOut: () => {
        keepToken(undefined);
        setState({ status: "token-needed" });
      },
      retry: () => void begin(keptToken()),
    }),
    [state, begin],
  );
  return <SessionContext.Provider value={session}>{children}</SessionContext.Provider>;
}

/** The session of the provider above. */
export function useSession(): Session {
  const session = useContext(SessionContext);
  if (session === undefined) throw new Error("there is no SessionProvider above this component");
  return session;
}

/** Gives the SDK's hooks below it a client that sends this token. */
export function ClientProvider({ token, children }: { token: string | undefined; children: ReactNode }): ReactNode {
  const { retry } = useSession();
  const client = useMemo(() => clientOf(token), [token]);
  const queries = useMemo(() => {
    // A token that has expired meanwhile is asked for again.
    const onError = (error: Error) => (error as AnalyticsError).status === 401 && retry();
    return new QueryClient({ queryCache: new QueryCache({ onError }) });
  }, [retry]);
  useEffect(() => {
    queries.mount();
    return () => queries.unmount();
  }, [queries]);
  return (
    <AnalyticsProvider key={token} client={client} queryClient={queries}>
      {children}
    </AnalyticsProvider>
  );
}
