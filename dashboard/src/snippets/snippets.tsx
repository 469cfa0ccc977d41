"use client";

import { type ReactNode, useEffect, useRef, useState } from "react";
import { MarkedText } from "../marked-text";
import { Panel } from "../panels/panel";
import { useSession } from "../session/session";
import type { Step } from "./quickstart";

/** The address that stands in the quickstarts. */
const WRITTEN_ADDRESS = "http://127.0.0.1:8080";

/** A quickstart, ready to be shown. */
export interface Quickstart {
  title: string;
  steps: Step[];
}

/** Quickstarts with the address of the service that this page came from. */
export function Snippets({ quickstarts }: { quickstarts: Quickstart[] }): ReactNode {
  const { state } = useSession();
  const [address, setAddress] = useState(WRITTEN_ADDRESS);
  useEffect(() => setAddress(window.location.origin), []);
  const needsToken = state.status === "token-needed" || (state.status === "ready" && state.token !== undefined);
  return (
    <>
      <p className={needsToken ? "notice" : "hint"}>
        {needsToken ? (
          <>
            This service requires a token. Put one into the environment first: <code>export TALLYHOUSE_TOKEN=…</code>,
            made with <code>tallyhouse token --org ORGANIZATION --scope &quot;ingest read&quot;</code>.
          </>
        ) : (
          <>This service requires no token: the variable TALLYHOUSE_TOKEN can stay empty.</>
        )}
      </p>
      {quickstarts.map(({ title, steps }) => (
        <Panel key={title} title={title}>
          {steps.map(({ title, text, blocks }) => (
            <section key={title}>
              <h3>{title}</h3>
              <p>
                <MarkedText text={text} />
              </p>
              {blocks.map(({ code }) => (
                <Code key={code} code={code.replaceAll(WRITTEN_ADDRESS, address)} />
              ))}
            </section>
          ))}
        </Panel>
      ))}
    </>
  );
}

function Code({ code }: { code: string }): ReactNode {
  const text = useRef<HTMLElement>(null);
  const [isCopied, setIsCopied] = useState(false);
  const copy = async () => setIsCopied(await isWritten(code, text.current));
  return (
    <div className="code">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <pre tabIndex={0}>
        <code ref={text}>{code}</code>
      </pre>
      <button type="button" onClick={() => void copy()}>
        {isCopied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}

/** Whether a code is in the clipboard. Where it cannot be put there, it is selected: the keyboard can copy it. */
async function isWritten(code: string, element: HTMLElement | null): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(code);
    return true;
  } catch {
    // Pages without HTTPS have no clipboard, but may copy what is selected.
    if (element !== null) getSelection()?.selectAllChildren(element);
    return document.execCommand("copy");
  }
}
