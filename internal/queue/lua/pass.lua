-- Ends a campaign's canary, all of whose recipients have a result, and gives out the
-- rest; with a wait, not before that is over.
-- KEYS 1 canary 2 parked 3 ring 4 claims 5 ready 6 queued
-- ARGV 1 campaign 2 the block of which only the first were given out, '' = none
-- Returns 1 if the canary is over, 0 if not yet.
local canary, parked, ring, claims, ready, queued = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local c, edge = ARGV[1], ARGV[2]
local entry = redis.call('HGET', canary, c)
if not entry then return 1 end
local size, blocks, wait, at = string.match(entry, '^(%d+) (%d+) (%d+) ?(%d*)$')
-- Who has a claim has not told the breakers yet what came of its last mails.
for n = 0, tonumber(blocks) - 1 do
  if redis.call('HEXISTS', claims, c .. '/' .. n) == 1 then return 0 end
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if at == '' then
  at = string.format('%.0f', now + tonumber(wait))
  redis.call('HSET', canary, c, size .. ' ' .. blocks .. ' ' .. wait .. ' ' .. at)
end
if tonumber(at) > now then return 0 end
redis.call('HDEL', canary, c)
if edge ~= '' and redis.call('HEXISTS', queued, edge) == 0 then redis.call('ZADD', ready, '0', edge) end
if redis.call('ZREM', parked, c .. '/') == 1 then redis.call('RPUSH', ring, c) end
return 1
