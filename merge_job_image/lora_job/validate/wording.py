"""Word checks of generated answers: required words, forbidden words, Simplified characters.

Terminology for Taiwan is judged by form: 資訊 not 信息, 正體字 not 简体. This module compares strings; it does not
judge whether a sentence is true.
"""

import re
import unicodedata

from lora_job.validate.coherence import incoherence

# Frequent characters that exist only in Simplified writing; any of them in an answer in zh-TW is a slip. Characters that
# both writings share (后, 台, 里, 干, 准) are left out on purpose.
_SIMPLIFIED = frozenset(
    "们这说对时会个来国为问间现过还发经进动样开关见让话边应义产业东两严丧临举习书买乱争亏亚亿仅从仓价众优伟传伤伦债倾"
    "储儿党兰兴养兽写军农决况冻净减击创别剂剑剧劝办务励劲劳势医华协单卖卢卫厂厅历厉压厌县双变叙叶号响员听启呜团园围图"
    "圆圣场坏块坚坛坝坟垄备复够头夹夺奋奖妇妈娱孙学宁宝实审宪宫宽宾寻导寿将尔尘尝层属岁岗岛币帅师帐带帮库废异弃张弹强"
    "归录彻忆忧怀态总恳恶恼悬惊惩惯愿慑战户执扩扫扬扰抚护报担择挂挡损换据携摄摆摇撑敌数断无旧显晓术机杀杂权条极构标栋"
    "树桥检楼欢毁毕气汇汉沟没沪泪泽洁测济浏浓涛涨涩润渐温湾湿满滚灭灯灵灾炉炼烂热爱爷状独狭狱猎环疗疯监盖盘码矿确础碍"
    "种积称稳穷窃竞笔筹签简类粮紧纠红纤约级纪纯纲纳纵纷纸线组细终绍织给络绝统继绩绪续维绵综绿编缓缘缩网罗罚职联肃肠肤"
    "胁胜脏脑脱艰艺节芦苏范荐荣药莲获营萝虑虽蚀蛮补装规视览觉触计订认讨训议讯记讲许论设访证评识诉诊词译试诗诚询该详语"
    "误请诸诺读课谁调谈谋谓谢谨谱贝负财责贤败货质贩贪贫购贯贱贴贵贷贸费贺资赋赌赏赔赖赚赛赞赢赵趋跃踪车轨转轮软轻载较"
    "辅辆辉输辑辞达迁运远违连迟适选递逻遗邮邻郑释针钟钢钱钻铁铃铜银链销锁错锐键镇镜长门闪闭闯闲闷闹闻阅阔队阳阴阵阶际"
    "陆陈险随隐难雾静韩页顶项顺顾顿预领频题颜额风飞饭饮饰馆驱验驾骂骑骗鱼鲁鲜鸟鸡鸣麦黄齐龄龙"
)


def simplified_characters(text: str) -> str:
    """The Simplified-only characters of a text, each once, in order of appearance."""
    return "".join(dict.fromkeys(character for character in text if character in _SIMPLIFIED))


def _fold(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).casefold()


def is_well_worded(
    text: str, *, prompt: str, must_contain_any: tuple[str, ...], must_not_contain: tuple[str, ...], lang: str
) -> bool:
    """Whether an answer has one of the required words, none of the forbidden ones, and the writing of its language.

    A required word that the prompt itself contains proves nothing (a model that repeats the question has it too), so
    it counts only where the prompt contains all of them.
    """
    if incoherence(text, prompt=prompt):
        return False
    folded, asked = _fold(text), _fold(prompt)
    must_contain_any = tuple(word for word in must_contain_any if _fold(word) not in asked) or must_contain_any
    if any(_fold(word) in folded for word in must_not_contain):
        return False
    if lang == "zh-TW" and simplified_characters(text):
        return False
    return not must_contain_any or any(_fold(word) in folded for word in must_contain_any)
