-- Gathers what the processes saw of the relay. One of them at a time leads: it is
-- given what was gathered, and draws conclusions from it (observe_adopt.lua).
--
-- KEYS[1]  also k:lead, "EPOCH UNTIL OWNER" (without it, nothing is learned) and
--          k:per_connection (most messages on one connection)
-- KEYS[3]  hash: what was seen and not looked at, a count each
-- KEYS[4]  hash: state (of the learner, as JSON)
-- ARGV: OWNER; for how long it would LEAD; COUNT, then FIELD N each
-- Returns: now, messages on a connection (0: any), EPOCH (0: another leads),
--       state (if the epoch is new), connections open without dials under way,
--       {FIELD, N, …}

local seen, learned = KEYS[3], KEYS[4]
local owner, lead = take(), num()
for _ = 1, num() do
  local field, n = take(), take()
  redis.call('HINCRBY', seen, field, n)
end

-- Connections that are open: all but those that still wait for their greeting.
local function connected()
  local n, streams = 0, {}
  for _, lease in ipairs(redis.call('ZRANGEBYSCORE', open, '(' .. int(now), '+inf')) do
    n = n + 1
    streams[string.match(lease, '^([^:]*):')] = true
  end
  for stream in pairs(streams) do
    for lapse in string.gmatch(redis.call('HGET', state, 'd:' .. stream) or '', '%S+ %d+ (%d+)') do
      if tonumber(lapse) > now then
        n = n - 1
      end
    end
  end
  return math.max(0, n)
end

local known = redis.call('HMGET', state, 'k:lead', 'k:per_connection')
local per = tonumber(known[2] or '') or 0
local epoch, ends, leader = string.match(known[1] or '', '^(%d+) (%d+) (.+)$')
if not epoch then
  redis.call('DEL', learned)
end
save()
if epoch and leader ~= owner and tonumber(ends) > now then
  return {now, per, 0, '', 0, {}}
end
local text = ''
if not epoch or leader ~= owner then
  epoch = int(now)
  text = redis.call('HGET', learned, 'state') or ''
end
redis.call('HSET', state, 'k:lead', epoch .. ' ' .. int(now + lead) .. ' ' .. owner)
local counts = redis.call('HGETALL', seen)
redis.call('DEL', seen)
return {now, per, tonumber(epoch), text, connected(), counts}
