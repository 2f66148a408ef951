-- Takes all claims of a dead member off it; their blocks are due at once, before others.
-- KEYS 1 claims 2 ready
-- ARGV 1 nonce
-- Returns the blocks.
local out = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.match(all[i + 1], ' (.*)$') == ARGV[1] then
    redis.call('HDEL', KEYS[1], all[i])
    redis.call('ZADD', KEYS[2], 0, all[i])
    out[#out + 1] = all[i]
  end
end
return out
