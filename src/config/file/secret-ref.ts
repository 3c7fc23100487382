/** Where to read a secret when it is needed. */
export type SecretRef =
  | { readonly kind: 'value'; readonly value: string }
  /** The whole file without one trailing newline. With `ownerUid`, file and folder must belong to that user and be closed to all others. */
  | { readonly kind: 'file'; readonly path: string; readonly ownerUid?: number; readonly optional?: boolean }
  /** The output of a command without one trailing newline; run without a shell. */
  | { readonly kind: 'command'; readonly argv: readonly [string, ...string[]] }
  /** An environment variable that was not set, or empty, when the settings were read. */
  | { readonly kind: 'unset'; readonly variable: string };

export interface CredentialRef {
  /** Default: `opencode`, as in opencode itself. */
  readonly username?: string | undefined;
  readonly password: SecretRef;
}
