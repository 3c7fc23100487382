/** Where a password is found when it is needed. */
export type SecretRef =
  | { readonly kind: 'value'; readonly value: string }
  /** Whole file, one trailing newline removed. With `ownerUid`, it must be a regular file of that uid, closed to group and others, in a folder just as closed. */
  | { readonly kind: 'file'; readonly path: string; readonly ownerUid?: number; readonly optional?: boolean }
  /** Standard output of a command, one trailing newline removed; argv, no shell. */
  | { readonly kind: 'command'; readonly argv: readonly [string, ...string[]] }
  /** An environment variable that was not set, or empty, when the settings were read. */
  | { readonly kind: 'unset'; readonly variable: string };

export interface CredentialRef {
  /** `opencode` where unset, as in opencode itself. */
  readonly username?: string | undefined;
  readonly password: SecretRef;
}
