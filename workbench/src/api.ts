// The server's routes, typed. The API key lives in sessionStorage: this tab only, gone when it closes.

export interface Measure {
  value: number;
  low?: number;
  high?: number;
}
export interface Measured {
  test_set: string;
  direction: string;
  n: number;
  metrics: Record<string, Measure>;
  baselines: Record<string, Record<string, Measure>>;
}
export interface Model {
  id: string;
  task: "translate" | "classify";
  created: number;
  languages: string[];
  directions?: [string, string][];
  labels?: string[];
  out_of_scope?: string;
  size_bytes: number;
  results: Measured[];
}
export interface ModelDetail extends Model {
  card: string;
}
export interface Translation {
  source: string;
  translation: string;
  score: number;
  source_language: string;
  target_language: string;
  alternatives: string[];
}
export interface Classification {
  text: string;
  label?: string;
  labels?: string[];
  scores: Record<string, number>;
}
export interface Answer<Result> {
  model: string;
  results: Result[];
  seconds: number;
}

// The same numbers as in inkstone/serve/limits.py, so that the page can say it before the server has to.
export const MAX_TEXTS = 256;
export const MAX_TEXT_CHARACTERS = 20_000;
export const MAX_CHARACTERS = 100_000;

/** An answer other than the one hoped for. status 0: no answer at all. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly retryAfterS = 0,
  ) {
    super(message);
  }
}

const KEY = "inkstone.key";

export function rememberKey(key: string): void {
  sessionStorage.setItem(KEY, key);
}

export function hasKey(): boolean {
  return sessionStorage.getItem(KEY) !== null;
}

async function call<Result>(path: string, body?: unknown, signal?: AbortSignal): Promise<Result> {
  const headers: Record<string, string> = {};
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers["Authorization"] = `Bearer ${key}`;
  const request: RequestInit = { headers, signal: signal ?? null };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    request.method = "POST";
    request.body = JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Failure(0, "");
  }
  if (!response.ok) {
    const told = (await response.json().catch(() => null)) as { error?: { message?: string } } | null;
    const retry = Number(response.headers.get("Retry-After") ?? 0);
    throw new Failure(response.status, told?.error?.message ?? response.statusText, retry);
  }
  return (await response.json()) as Result;
}

export async function listModels(): Promise<Model[]> {
  return (await call<{ data: Model[] }>("/v1/models")).data;
}

export function showModel(id: string): Promise<ModelDetail> {
  return call(`/v1/models/${encodeURIComponent(id)}`);
}

export interface TranslateRequest {
  text: string[];
  model: string;
  from: string | null;
  to: string | null;
  alternatives: number;
}

export function translate(asked: TranslateRequest, signal: AbortSignal): Promise<Answer<Translation>> {
  return call("/v1/translate", asked, signal);
}

export function classify(text: string[], model: string, signal: AbortSignal): Promise<Answer<Classification>> {
  return call("/v1/classify", { text, model, top: 3 }, signal);
}
