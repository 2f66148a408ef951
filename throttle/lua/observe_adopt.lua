-- Stores what the leader has learned, and sets the learned limits to these and no
-- others.
--
-- KEYS as in observe.lua
-- ARGV: EPOCH, STATE; COUNT, then FIELD (k:…) VALUE each
-- Returns: 1, or 0 if that epoch is over

local learned = KEYS[4]
local epoch, text = take(), take()
if string.match(redis.call('HGET', state, 'k:lead') or '', '^%d+') ~= epoch then
  return 0
end
local limits = {}
for _ = 1, num() do
  local field, value = take(), take()
  limits[field] = true
  redis.call('HSET', state, field, value)
end
local all = redis.call('HGETALL', state)
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'k:' and all[i] ~= 'k:lead' and not limits[all[i]] then
    redis.call('HDEL', state, all[i])
  end
end
redis.call('HSET', learned, 'state', text)
return 1
