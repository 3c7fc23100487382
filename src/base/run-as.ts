/** What helps where files are another user's: opening them to others would only have the next check refuse them. */
export function runAs({ uid, gid }: { readonly uid: number | bigint; readonly gid: number | bigint }): string {
  return `run this as uid ${uid} (docker run --user ${uid}:${gid})`;
}
