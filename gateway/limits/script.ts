/**
 * The counters of one key in Redis, in one atomic script: the same rules as in `memory.ts`, which says them in TypeScript.
 * A property test holds the two against each other.
 *
 * KEYS[1], a hash: `r<n>` and `t<n>` requests and tokens of slice n, `d<n>` tokens of day n, `reserved` tokens.
 * KEYS[2], a sorted set: the running requests as `lease|reserved tokens`, by the time at which they count as gone. Without
 * it nothing is reserved, whatever the hash says: it ends soon after the last gateway that renewed a request.
 * ARGV: operation, time (empty: Redis' own clock, so that gateways need not agree), slice, slices, day, lease lengths in
 * milliseconds, and then by operation
 *   admit: lease, tokens to reserve, and the limits (requests, tokens, concurrent, tokens a day; empty: none)
 *   look: the same, and nothing is counted or reserved
 *   settle: lease, tokens that it had reserved, tokens that it took
 *   charge: tokens
 * Gives limit (0: admitted, else the place in LIMIT_NAMES from 1), retry_ms, and the members of Counts in their order.
 */
export const LIMIT_SCRIPT = `
local slice, slices, day, leaseMs = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local today = math.floor(now / day)
local current = math.floor(now / slice)
local retryRunning = 1000
-- If the clock goes back again, those days are as they were.
local keptDays = 2

local requests, tokens, numbers = {}, {}, {}
local state = {today = 0, reserved = 0}
local stale, ahead = {}, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local field, value = fields[i], tonumber(fields[i + 1])
  if field == 'reserved' then
    state.reserved = value
  else
    local kind, number = string.sub(field, 1, 1), tonumber(string.sub(field, 2))
    if kind == 'd' then
      if number == today then state.today = state.today + value
      elseif number > today then ahead[#ahead + 1] = {'d', today, value, field}
      elseif number < today - keptDays then stale[#stale + 1] = field end
    elseif number > current then
      ahead[#ahead + 1] = {kind, current, value, field}
    elseif (number + 1 + slices) * slice <= now then
      stale[#stale + 1] = field
    else
      if not requests[number] and not tokens[number] then numbers[#numbers + 1] = number end
      if kind == 'r' then requests[number] = value else tokens[number] = value end
    end
  end
end
if #stale > 0 then redis.call('HDEL', KEYS[1], unpack(stale)) end
-- The clock has gone back: what was counted ahead of it counts as of now.
for _, one in ipairs(ahead) do
  local kind, number, value, field = one[1], one[2], one[3], one[4]
  if kind == 'd' then
    state.today = state.today + value
  else
    if not requests[number] and not tokens[number] then numbers[#numbers + 1] = number end
    local counts = kind == 'r' and requests or tokens
    counts[number] = (counts[number] or 0) + value
  end
  redis.call('HINCRBY', KEYS[1], kind .. string.format('%.0f', number), string.format('%.0f', value))
  redis.call('HDEL', KEYS[1], field)
end
table.sort(numbers)

local function release(member)
  if redis.call('ZREM', KEYS[2], member) == 0 then return end
  local reserved = tonumber(string.match(member, '|(%d+)$'))
  state.reserved = math.max(0, state.reserved - reserved)
  redis.call('HSET', KEYS[1], 'reserved', string.format('%.0f', state.reserved))
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do release(member) end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. string.format('%.0f', now + leaseMs), '+inf')) do
  redis.call('ZADD', KEYS[2], now + leaseMs, member)
  redis.call('PEXPIRE', KEYS[2], 2 * leaseMs)
end
if redis.call('ZCARD', KEYS[2]) == 0 then state.reserved = 0 end

local function total(kind)
  local sum = 0
  for _, value in pairs(kind) do sum = sum + value end
  return sum
end
local function untilAtMost(kind, most)
  local sum = total(kind)
  for _, number in ipairs(numbers) do
    if sum <= most then break end
    sum = sum - (kind[number] or 0)
    if sum <= most then return (number + 1 + slices) * slice - now end
  end
  return 0
end
local function answer(limit, retry)
  return {limit, retry, total(requests), total(tokens), state.today, state.reserved, redis.call('ZCARD', KEYS[2]),
    untilAtMost(requests, 0), untilAtMost(tokens, 0)}
end
local function add(letter, kind, amount)
  if amount == 0 then return end
  if not requests[current] and not tokens[current] then numbers[#numbers + 1] = current end
  kind[current] = (kind[current] or 0) + amount
  redis.call('HINCRBY', KEYS[1], letter .. string.format('%.0f', current), string.format('%.0f', amount))
end
local function charge(amount)
  add('t', tokens, amount)
  state.today = state.today + amount
  redis.call('HINCRBY', KEYS[1], 'd' .. string.format('%.0f', today), string.format('%.0f', amount))
  redis.call('PEXPIRE', KEYS[1], 2 * day)
end

if ARGV[1] == 'charge' then
  charge(tonumber(ARGV[7]))
  return answer(0, 0)
end
if ARGV[1] == 'settle' then
  release(ARGV[7] .. '|' .. ARGV[8])
  charge(tonumber(ARGV[9]))
  return answer(0, 0)
end

local perMinute, tokensPerMinute = tonumber(ARGV[9]), tonumber(ARGV[10])
local concurrent, perDay = tonumber(ARGV[11]), tonumber(ARGV[12])
if perDay and state.today + state.reserved >= perDay then
  return answer(4, state.today >= perDay and (today + 1) * day - now or retryRunning)
end
if concurrent and redis.call('ZCARD', KEYS[2]) >= concurrent then return answer(1, retryRunning) end
if perMinute and total(requests) >= perMinute then return answer(2, untilAtMost(requests, perMinute - 1)) end
if tokensPerMinute and total(tokens) + state.reserved >= tokensPerMinute then
  local wait = untilAtMost(tokens, tokensPerMinute - 1)
  return answer(3, wait == 0 and retryRunning or wait)
end
if ARGV[1] == 'look' then return answer(0, 0) end
local reserve = tonumber(ARGV[8])
add('r', requests, 1)
state.reserved = state.reserved + reserve
redis.call('HSET', KEYS[1], 'reserved', string.format('%.0f', state.reserved))
redis.call('ZADD', KEYS[2], now + leaseMs, ARGV[7] .. '|' .. ARGV[8])
redis.call('PEXPIRE', KEYS[1], 2 * day)
redis.call('PEXPIRE', KEYS[2], 2 * leaseMs)
return answer(0, 0)
`;

/**
 * KEYS: those of above. ARGV: time as above, lease length, and members that are given a new time. One that is not there any
 * more is put back, with what it reserved: Redis has lost it, or its clock has gone ahead.
 */
export const RENEW_SCRIPT = `
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local leaseMs = tonumber(ARGV[2])
local reserved = redis.call('ZCARD', KEYS[2]) == 0 and 0 or tonumber(redis.call('HGET', KEYS[1], 'reserved') or 0)
for i = 3, #ARGV do
  local added = redis.call('ZADD', KEYS[2], now + leaseMs, ARGV[i])
  if added == 1 then reserved = reserved + tonumber(string.match(ARGV[i], '|(%d+)$')) end
end
redis.call('HSET', KEYS[1], 'reserved', string.format('%.0f', reserved))
if redis.call('PTTL', KEYS[1]) < 2 * leaseMs then redis.call('PEXPIRE', KEYS[1], 2 * leaseMs) end
redis.call('PEXPIRE', KEYS[2], 2 * leaseMs)
return 1`;
