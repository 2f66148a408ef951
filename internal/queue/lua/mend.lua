-- Adds a campaign's totals up anew from the shares of its blocks. A share that does
-- not parse is dropped, and its block is folded again.
-- KEYS 1 sums 2 totals 3 live
-- ARGV the totals, in the order of a share's numbers
-- Returns how many shares were dropped.
local total, dropped = {}, 0
for i = 1, #ARGV do total[i] = 0 end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local nums, ok = {}, true
  for part in string.gmatch(all[i + 1] .. ',', '(.-),') do
    ok = ok and string.match(part, '^%d+$') ~= nil
    nums[#nums + 1] = tonumber(part)
  end
  if ok and #nums >= #ARGV then
    for j = 1, #ARGV do total[j] = total[j] + nums[j] end
  else
    redis.call('HDEL', KEYS[1], all[i])
    redis.call('SADD', KEYS[3], all[i])
    dropped = dropped + 1
  end
end
local kept = redis.call('HGETALL', KEYS[2])
for i = 1, #kept, 2 do
  if not string.match(kept[i + 1], '^%d+$') then redis.call('HDEL', KEYS[2], kept[i]) end
end
for i = 1, #ARGV do redis.call('HSET', KEYS[2], ARGV[i], string.format('%.0f', total[i])) end
return dropped
