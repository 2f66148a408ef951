-- Takes some blocks of a campaign that is gone out of its stream's schedule, and the
-- campaign itself. What is claimed stays so: its holder gives it up.
-- KEYS 1 held 2 ring 3 next 4 total 5 later 6 opening 7 canary 8 claims 9 queued
--      10 ready 11 parked 12 touched 13 the campaign's results 14 deaths
-- ARGV 1 campaign 2 the first block 3 the first one that is not meant any more
-- Returns how many of the blocks are claimed.
local c, claims = ARGV[1], 0
redis.call('LREM', KEYS[2], 0, c)
redis.call('HDEL', KEYS[3], c)
redis.call('HDEL', KEYS[4], c)
redis.call('ZREM', KEYS[5], c)
redis.call('SREM', KEYS[6], c)
redis.call('HDEL', KEYS[7], c)
redis.call('ZREM', KEYS[11], c .. '/')
redis.call('DEL', KEYS[13])
if redis.call('HDEL', KEYS[1], c) == 1 then raise(KEYS[1]) end
for n = tonumber(ARGV[2]), tonumber(ARGV[3]) - 1 do
  local block = c .. '/' .. string.format('%d', n)
  claims = claims + redis.call('HEXISTS', KEYS[8], block)
  redis.call('HDEL', KEYS[9], block)
  redis.call('ZREM', KEYS[10], block)
  redis.call('ZREM', KEYS[11], block)
  redis.call('SREM', KEYS[12], block)
  redis.call('HDEL', KEYS[14], block)
end
return claims
