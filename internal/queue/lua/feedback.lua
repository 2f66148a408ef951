-- Notes what became of accepted mails and counts it: each recipient once, however often
-- and in whatever order it is told. The letters are Fate's; where two are told of one
-- recipient the worse one stands.
-- KEYS 1 fates: string, a letter for each line of the list by its number, NUL = not told
--      2 counts: hash, letter -> recipients 3 meta
-- ARGV 1 first and 2 last line of this call 3 what is told, ascending: each the distance
--      from the first line and a letter
-- Returns {how many changed, the lines that became b ...}, or {} when the campaign is not
-- open (any more).
if redis.call('HGET', KEYS[3], 'state') ~= 'open' then return {} end
local rank = {d = 1, c = 2, f = 3, h = 4, b = 5}
local first = tonumber(ARGV[1])
local known = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2])
known = known .. string.rep('\0', tonumber(ARGV[2]) - first + 1 - #known)
local parts, at, counts, out = {}, 1, {}, {0}
for distance, letter in string.gmatch(ARGV[3], '(%d+)(%a)') do
  local i = tonumber(distance) + 1
  local old = string.sub(known, i, i)
  if rank[letter] > (rank[old] or 0) then
    parts[#parts + 1] = string.sub(known, at, i - 1)
    parts[#parts + 1] = letter
    at = i + 1
    if rank[old] then counts[old] = (counts[old] or 0) - 1 end
    counts[letter] = (counts[letter] or 0) + 1
    out[1] = out[1] + 1
    if letter == 'b' then out[#out + 1] = first + i - 1 end
  end
end
if out[1] > 0 then
  parts[#parts + 1] = string.sub(known, at)
  redis.call('SETRANGE', KEYS[1], ARGV[1], table.concat(parts))
  for letter, n in pairs(counts) do redis.call('HINCRBY', KEYS[2], letter, n) end
end
return out
