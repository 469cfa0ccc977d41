const RANDOM_BYTES = 10;

function randomBytes(): Uint8Array {
  const bytes = new Uint8Array(RANDOM_BYTES);
  // Available in every secure and insecure context of a browser; absent only in very old runtimes.
  return globalThis.crypto?.getRandomValues(bytes) ?? bytes.map(() => Math.random() * 256);
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/**
 * Makes a UUIDv7 (RFC 9562, section 5.7) of this time.
 *
 * @param ms Milliseconds since 1970.
 * @param sequence The 12 bits after the time, for ids that must sort in the order in which they are made; random when
 *   left out.
 */
export function uuid7(ms: number, sequence?: number): string {
  const bytes = randomBytes();
  const random = Array.from(bytes, (byte) => hex(byte, 2)).join("");
  const time = hex(ms, 12);
  const afterTime = sequence === undefined ? random.slice(0, 3) : hex(sequence, 3);
  // Two fixed bits and two random ones.
  const variant = hex(8 | ((bytes[9] as number) & 3), 1);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${afterTime}-${variant}${random.slice(3, 6)}-${random.slice(6, 18)}`;
}

/** The time in a UUIDv7, in milliseconds since 1970; undefined for any other text. */
export function uuid7Time(id: string): number | undefined {
  const match = /^([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab]/.exec(id);
  return match ? Number.parseInt(`${match[1]}${match[2]}`, 16) : undefined;
}

/** Makes UUIDv7s that sort in the order in which they were made, whatever the clock does. */
export function orderedIds(): (ms: number) => string {
  let lastMs = 0;
  let sequence = 0;
  return (ms) => {
    if (ms > lastMs) {
      lastMs = ms;
      sequence = 0;
    } else if (++sequence > 0xfff) {
      lastMs++;
      sequence = 0;
    }
    return uuid7(lastMs, sequence);
  };
}
