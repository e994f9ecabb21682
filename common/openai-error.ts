/** The error body of the OpenAI API as vLLM sends it; `code` is the HTTP status. */
export interface OpenAiErrorBody {
  error: { message: string; type: string; param: string | null; code: number };
}

/** Builds the body of an error answer. `param` names the request field that is wrong. */
export function openAiError(
  status: number,
  type: string,
  message: string,
  param: string | null = null,
): OpenAiErrorBody {
  return { error: { message, type, param, code: status } };
}
