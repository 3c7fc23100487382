import * as z from 'zod';

/** The version of the format that `opencode-connected survey` reads and prints. */
export const SURVEY_FORMAT = 1;

const text = z.string().max(4_096);
const id = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/);
const port = z.int().min(1).max(65_535);

const surveyedRegistration = z
  .object({
    /** The file name without `.json`. */
    name: text,
    isMine: z.boolean(),
    ownerUid: z.int().nonnegative(),
    /** Changes when the file is written or replaced. */
    version: text,
    registration: z
      .object({
        id: id.optional(),
        hostname: text.optional(),
        port,
        localPort: port.optional(),
        cwd: text.optional(),
      })
      .readonly(),
    /** Whether anything accepts connections on `port` of the surveyed machine's loopback. */
    listens: z.enum(['some', 'none', 'unknown']),
  })
  .readonly();

const surveyedClaim = z
  .object({
    name: text,
    isMine: z.boolean(),
    /** The process that holds the name. `elsewhere`: on another machine. `unknown`: another user's, or not a claim. */
    holder: z.enum(['alive', 'dead', 'elsewhere', 'unknown']),
    id: text,
    pid: z.int().optional(),
    host: text,
    /** The file's line, unchanged. */
    line: text,
  })
  .readonly();

const surveyedPassword = z
  .object({
    id,
    isMine: z.boolean(),
    /** Older than an hour. */
    isOld: z.boolean(),
  })
  .readonly();

/** A file with the name of a registration that is none, and why. */
const oddFile = z.object({ fileName: text, reason: text }).readonly();

/** The contents of a registry directory, as a process on its machine sees them. Text is raw: clean it before it is shown. */
export const registrySurvey = z
  .object({
    host: text,
    /** The uid of the user who surveyed; undefined if the system has none. */
    uid: z.int().optional(),
    /** With symbolic links resolved. */
    directory: text,
    isMissing: z.boolean(),
    /** The directory's owner; undefined if it is missing. */
    ownerUid: z.int().optional(),
    /** Only this user can write to it. Otherwise nothing is removed. */
    isOursAlone: z.boolean(),
    registrations: z.array(surveyedRegistration).readonly(),
    odd: z.array(oddFile).readonly(),
    claims: z.array(surveyedClaim).readonly(),
    passwords: z.array(surveyedPassword).readonly(),
    /** The number of registrations that were not read, since there are too many. */
    leftOut: z.int().nonnegative(),
  })
  .readonly();

/** Something to remove. It is checked again first, and left if it has changed since the survey. */
export const removalOrder = z.discriminatedUnion('kind', [
  z
    .object({
      /** Removes a registration and the claim of its name. */
      kind: z.literal('registration'),
      name: text,
      /** The claim's line; empty if there is none. */
      claim: text,
      version: text.optional(),
      port: port.optional(),
    })
    .readonly(),
  z
    .object({
      /** Removes a password that no registration and no claim needs; with `old`, only if it is older than an hour. */
      kind: z.literal('password'),
      id,
      age: z.enum(['any', 'old']),
    })
    .readonly(),
]);

export const removal = z.discriminatedUnion('removed', [
  z.object({ removed: z.literal(true) }).readonly(),
  z.object({ removed: z.literal(false), reason: text }).readonly(),
]);

/** The request of one machine to `opencode-connected survey` on another. */
export const surveyRequest = z
  .object({
    format: z.literal(SURVEY_FORMAT),
    /** Absolute, or beginning with `~/`. */
    directory: text,
    /** Nobody chose that directory. */
    isDefault: z.boolean(),
    /** Without orders, a survey. */
    orders: z.array(removalOrder).readonly().optional(),
  })
  .readonly();

export type RegistrySurvey = z.infer<typeof registrySurvey>;
export type SurveyedRegistration = z.infer<typeof surveyedRegistration>;
export type SurveyedClaim = z.infer<typeof surveyedClaim>;
export type RemovalOrder = z.infer<typeof removalOrder>;
export type Removal = z.infer<typeof removal>;
export type SurveyRequest = z.infer<typeof surveyRequest>;
