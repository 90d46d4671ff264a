/** What another sidecar reports, as far as this one can tell. */
export type Peer = object;

/**
 * Whether every live sidecar has heard that a follower answers so large a share of reads, and gives its clients the tokens for it:
 * what each of them answers from then on, the client carries here. One that says nothing of the kind runs another plan.
 */
export function isInStep(peers: readonly Peer[], tokens: string, since: number): boolean {
  return peers.every(
    (peer) =>
      "tokens" in peer &&
      peer.tokens === tokens &&
      "version" in peer &&
      typeof peer.version === "number" &&
      peer.version >= since,
  );
}
