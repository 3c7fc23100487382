import * as z from 'zod';

/** The version of what `opencode-connected survey` reads and prints. */
export const SURVEY_FORMAT = 1;

const text = z.string().max(4_096);
const id = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/);
const port = z.int().min(1).max(65_535);

const surveyedRegistration = z
  .object({
    /** Of its file, without `.json`. */
    name: text,
    isMine: z.boolean(),
    ownerUid: z.int().nonnegative(),
    /** Distinguishes the file that was read from one written since. */
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
    /** Whether anything accepts connections on `port` of that machine's loopback. */
    listens: z.enum(['some', 'none', 'unknown']),
  })
  .readonly();

const surveyedClaim = z
  .object({
    /** That is held. */
    name: text,
    isMine: z.boolean(),
    /** `elsewhere`: by a process of another machine. `unknown`: another user's, or not a claim. */
    holder: z.enum(['alive', 'dead', 'elsewhere', 'unknown']),
    id: text,
    pid: z.int().optional(),
    host: text,
    /** As it stands in the file. */
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

/** A file named like a registration that is not one, and why. */
const oddFile = z.object({ fileName: text, reason: text }).readonly();

/** What lies in one registry directory, as a process of its machine sees it. Text is as it is: clean it before it is shown. */
export const registrySurvey = z
  .object({
    host: text,
    /** Of the user who looked; undefined if the system has no such thing. */
    uid: z.int().optional(),
    /** With symbolic links resolved. */
    directory: text,
    isMissing: z.boolean(),
    /** Of the directory; undefined if it is missing. */
    ownerUid: z.int().optional(),
    /** It is this user's, and nobody else can write in it: else nothing is removed. */
    isOursAlone: z.boolean(),
    registrations: z.array(surveyedRegistration).readonly(),
    odd: z.array(oddFile).readonly(),
    claims: z.array(surveyedClaim).readonly(),
    passwords: z.array(surveyedPassword).readonly(),
    /** Registrations beyond the most that are read. */
    leftOut: z.int().nonnegative(),
  })
  .readonly();

/** What is to be removed. Each is looked at again first, and left where it is not what was surveyed. */
export const removalOrder = z.discriminatedUnion('kind', [
  z
    .object({
      /** A registration and the claim of its name. */
      kind: z.literal('registration'),
      name: text,
      /** The claim's line; empty where there is none. */
      claim: text,
      /** Of the registration; absent where there is none. */
      version: text.optional(),
      /** Absent where there is no registration. */
      port: port.optional(),
    })
    .readonly(),
  z
    .object({
      /** A password that no registration and no claim needs; with `old`, only one of more than an hour. */
      kind: z.literal('password'),
      id,
      age: z.enum(['any', 'old']),
    })
    .readonly(),
]);

export const removal = z.discriminatedUnion('removed', [
  z.object({ removed: z.literal(true) }).readonly(),
  /** Why it was left. */
  z.object({ removed: z.literal(false), reason: text }).readonly(),
]);

/** What one machine asks of `opencode-connected survey` on another. */
export const surveyRequest = z
  .object({
    format: z.literal(SURVEY_FORMAT),
    /** Absolute, or beginning with `~/`. */
    directory: text,
    /** Nobody has chosen that directory. */
    isDefault: z.boolean(),
    /** Without orders it is a survey that is asked for. */
    orders: z.array(removalOrder).readonly().optional(),
  })
  .readonly();

export type RegistrySurvey = z.infer<typeof registrySurvey>;
export type SurveyedRegistration = z.infer<typeof surveyedRegistration>;
export type SurveyedClaim = z.infer<typeof surveyedClaim>;
export type RemovalOrder = z.infer<typeof removalOrder>;
export type Removal = z.infer<typeof removal>;
export type SurveyRequest = z.infer<typeof surveyRequest>;
