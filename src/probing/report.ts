import type { Candidate } from '../model/candidate.ts';
import { currentReport, type Report } from '../model/report.ts';
import { isKnownService } from './opencode-2.ts';
import { unsupportedReason } from './supported-version.ts';

/** What the watcher of that server says, where it can be believed and tells of one that this program can drive; else the server is asked, and told why not. */
export function usableReport(candidate: Candidate): Report | undefined {
  const report = currentReport(candidate);
  if (report === undefined) return undefined;
  const { dialect, version } = report.result;
  const isSupported =
    dialect === 'opencode-1'
      ? unsupportedReason(version) === undefined
      : dialect === 'opencode-2-preview' || isKnownService(version);
  return isSupported ? report : undefined;
}
