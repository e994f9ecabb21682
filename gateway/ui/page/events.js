/**
 * Server-sent events of a response. A page with an API key cannot use EventSource, which sends no headers.
 *
 * @param {Response} response
 * @param {(event: string, data: string) => void} onEvent
 */
export async function readEvents(response, onEvent) {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value.replaceAll('\r', '');
    let end = rest.indexOf('\n\n');
    while (end >= 0) {
      tell(rest.slice(0, end), onEvent);
      rest = rest.slice(end + 2);
      end = rest.indexOf('\n\n');
    }
  }
}

/**
 * @param {string} block
 * @param {(event: string, data: string) => void} onEvent
 */
function tell(block, onEvent) {
  let event = 'message';
  const data = [];
  for (const line of block.split('\n')) {
    if (line.startsWith('event:')) event = line.slice(6).trim();
    else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
  }
  if (data.length > 0) onEvent(event, data.join('\n'));
}
