/** The error body of the OpenAI API as vLLM sends it; `code` is the HTTP status, or a name that OpenAI's clients look for. */
export interface OpenAiErrorBody {
  error: { message: string; type: string; param: string | null; code: number | string };
}

/** Builds the body of an error answer. `param` names the request field that is wrong. */
export function openAiError(
  status: number,
  type: string,
  message: string,
  param: string | null = null,
  code: number | string = status,
): OpenAiErrorBody {
  return { error: { message, type, param, code } };
}
