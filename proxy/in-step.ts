/** What another sidecar reports, as far as this one can tell. */
export type Peer = object;

/**
 * Whether every live sidecar has heard that a follower answers so large a share of reads, and gives its clients the tokens for it:
 * what each of them answers from then on, the client carries here, or is found in Redis. One that says nothing of the kind runs
 * another plan. One that does not know of `me` may still think that it is alone.
 */
export function isInStep(peers: readonly Peer[], mine: Mine): boolean {
  return peers.every(
    (peer) =>
      "tokens" in peer &&
      peer.tokens === mine.tokens &&
      "version" in peer &&
      typeof peer.version === "number" &&
      peer.version >= mine.since &&
      knows(peer, mine.id),
  );
}

export interface Mine {
  readonly id: string;
  readonly tokens: string;
  readonly since: number;
}

/** Whether a sidecar's report names `id` among the others it knows. */
export function knows(peer: Peer, id: string): boolean {
  return "peers" in peer && Array.isArray(peer.peers) && peer.peers.includes(id);
}

/** What a sidecar does for the reads of the others: numbered, and named by its run, so that a restart is no lower number. */
export function pledgeOf(peer: Peer): string | undefined {
  return "pledge" in peer && typeof peer.pledge === "string" ? peer.pledge : undefined;
}

/**
 * Whether `peer` has heard pledge `number` of this run of `id`. One that names no pledge of it has not: it may be new, or have gone
 * on without `id` for so long that it has forgotten it.
 */
export function hasHeard(peer: Peer, id: string, run: string, number: number): boolean {
  if (!("heard" in peer) || typeof peer.heard !== "object" || peer.heard === null) return true;
  const heard: unknown = Reflect.get(peer.heard, id);
  if (typeof heard !== "string") return false;
  const [of, latest] = heard.split(":");
  return of === run && Number(latest) >= number;
}
