-- Writes a claim again that its holder remembers and a restarted Redis may have
-- lost. The higher epoch wins, and the counter never falls behind it.
-- KEYS 1 claims 2 epoch 3 ready 4 queued
-- ARGV 1 block 2 epoch 3 nonce
-- Returns 1 if the claim stands, 0 if somebody else's newer one does.
local e = tonumber(ARGV[2])
if tonumber(redis.call('GET', KEYS[2]) or '0') < e then redis.call('SET', KEYS[2], ARGV[2]) end
local cur = redis.call('HGET', KEYS[1], ARGV[1])
local mine = ARGV[2] .. ' ' .. ARGV[3]
if cur and cur ~= mine and tonumber(string.match(cur, '^%d+')) > e then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], mine)
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
return 1
