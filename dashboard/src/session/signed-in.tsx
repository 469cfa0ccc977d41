"use client";

import { type FormEvent, type ReactNode, useState } from "react";
import { ClientProvider, useSession } from "./session";

/** Shows its children once the service can be asked; before that, what is missing. */
export function SignedIn({ children }: { children: ReactNode }): ReactNode {
  const { state, retry } = useSession();
  switch (state.status) {
    case "checking":
      return <p role="status">Connecting to the service…</p>;
    case "token-needed":
      return <SignIn reason={state.reason} />;
    case "failed":
      return (
        <div role="alert" className="notice bad">
          <p>
            The service cannot answer: {state.error.message} ({state.error.code})
          </p>
          <button type="button" onClick={retry}>
            Try again
          </button>
        </div>
      );
    case "ready":
      return <ClientProvider token={state.token}>{children}</ClientProvider>;
  }
}

function SignIn({ reason }: { reason: string | undefined }): ReactNode {
  const { signIn } = useSession();
  const [token, setToken] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    signIn(token.trim());
  };
  return (
    <section className="panel narrow" aria-labelledby="sign-in">
      <h2 id="sign-in">Sign in</h2>
      <p>This service requires a token with the scope &ldquo;read&rdquo;. Whoever runs it makes one with</p>
      <pre>
        <code>tallyhouse token --org ORGANIZATION --scope read</code>
      </pre>
      <form onSubmit={submit}>
        <label htmlFor="token">Token</label>
        <input
          id="token"
          type="password"
          autoComplete="current-password"
          spellCheck={false}
          required
          value={token}
          onChange={(event) => setToken(event.target.value)}
          aria-describedby="token-kept"
          aria-invalid={reason !== undefined}
        />
        <p id="token-kept" className="hint">
          It stays in this tab until you close it or sign out.
        </p>
        {reason !== undefined && (
          <p role="alert" className="bad">
            The token was refused: {reason}
          </p>
        )}
        <button type="submit" className="primary">
          Sign in
        </button>
      </form>
    </section>
  );
}
