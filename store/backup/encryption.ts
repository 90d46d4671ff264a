import { createCipheriv, createDecipheriv, randomBytes, scryptSync } from "node:crypto";
import { Transform, type TransformCallback } from "node:stream";
import { CrossfadeError } from "../../config/errors.ts";

/**
 * The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015) over AES-256-GCM: frames of 1 MiB, each with its own
 * tag; the nonce counts frames and marks the last, so that frames cannot be reordered, dropped or cut off.
 * File: magic, salt (16), nonce prefix (7), then frames of length (4, big endian), ciphertext, tag (16).
 */
const MAGIC = Buffer.from("CFBACKUP1\n");
const SALT = 16;
const PREFIX = 7;
const TAG = 16;
const FRAME = 1 << 20;
const HEADER = MAGIC.length + SALT + PREFIX;

function keyOf(passphrase: string, salt: Buffer): Buffer {
  return scryptSync(passphrase, salt, 32);
}

function nonceOf(prefix: Buffer, counter: number, last: boolean): Buffer {
  const nonce = Buffer.alloc(12);
  prefix.copy(nonce);
  nonce.writeUInt32BE(counter, PREFIX);
  nonce.writeUInt8(last ? 1 : 0, 11);
  return nonce;
}

/** Cuts what goes through into frames; the last one is known only at the end. */
export function encrypt(passphrase: string): Transform {
  const salt = randomBytes(SALT);
  const prefix = randomBytes(PREFIX);
  const key = keyOf(passphrase, salt);
  let pending = Buffer.alloc(0);
  let counter = 0;
  let begun = false;
  const begin = (stream: Transform) => {
    if (!begun) stream.push(Buffer.concat([MAGIC, salt, prefix]));
    begun = true;
  };
  const seal = (plain: Buffer, last: boolean): Buffer => {
    const cipher = createCipheriv("aes-256-gcm", key, nonceOf(prefix, counter++, last));
    const sealed = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(sealed.length);
    return Buffer.concat([length, sealed]);
  };
  return new Transform({
    transform(chunk: Buffer, _, done) {
      begin(this);
      pending = Buffer.concat([pending, chunk]);
      while (pending.length > FRAME) {
        this.push(seal(pending.subarray(0, FRAME), false));
        pending = pending.subarray(FRAME);
      }
      done();
    },
    flush(done) {
      begin(this);
      this.push(seal(pending, true));
      done();
    },
  });
}

/** The reverse of `encrypt`. Fails on a wrong passphrase, a changed byte, and a file that was cut off. */
export function decrypt(passphrase: string): Transform {
  let pending = Buffer.alloc(0);
  let keys: { readonly key: Buffer; readonly prefix: Buffer } | undefined;
  let counter = 0;
  const open = (sealed: Buffer, last: boolean): Buffer => {
    if (keys === undefined || sealed.length < TAG) throw damaged();
    const decipher = createDecipheriv(
      "aes-256-gcm",
      keys.key,
      nonceOf(keys.prefix, counter++, last),
    );
    decipher.setAuthTag(sealed.subarray(sealed.length - TAG));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(0, -TAG)), decipher.final()]);
    } catch {
      throw damaged();
    }
  };
  /** A frame is opened only when more follows it: only then is it known not to be the last. */
  const advance = (stream: Transform): void => {
    if (keys === undefined) {
      if (pending.length < HEADER) return;
      if (!pending.subarray(0, MAGIC.length).equals(MAGIC)) throw damaged();
      const salt = pending.subarray(MAGIC.length, MAGIC.length + SALT);
      const prefix = Buffer.from(pending.subarray(MAGIC.length + SALT, HEADER));
      keys = { key: keyOf(passphrase, salt), prefix };
      pending = pending.subarray(HEADER);
    }
    for (;;) {
      const end = pending.length < 4 ? Number.POSITIVE_INFINITY : 4 + pending.readUInt32BE(0);
      if (end > 4 + FRAME + TAG && Number.isFinite(end)) throw damaged();
      if (pending.length <= end) return;
      stream.push(open(pending.subarray(4, end), false));
      pending = pending.subarray(end);
    }
  };
  const guarded = (done: TransformCallback, work: () => void): void => {
    try {
      work();
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    done();
  };
  return new Transform({
    transform(chunk: Buffer, _, done) {
      guarded(done, () => {
        pending = Buffer.concat([pending, chunk]);
        advance(this);
      });
    },
    flush(done) {
      guarded(done, () => {
        if (pending.length < 4 || pending.length !== 4 + pending.readUInt32BE(0)) throw damaged();
        this.push(open(pending.subarray(4), true));
      });
    },
  });
}

function damaged(): CrossfadeError {
  return new CrossfadeError(
    "FAILED",
    "the backup cannot be decrypted: another key, or the file was changed or cut off",
    { hint: "Set backup.key in the plan to the key it was made with." },
  );
}
